"""Where pictures come from, how they are split and checked, and how they become tensors."""
