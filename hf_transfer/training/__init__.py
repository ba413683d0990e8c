"""How a checkpoint is trained: arguments, loss, parameter groups, strategies and the Trainer subclass."""
