"""What a model is worth: metrics, evaluation of saved models, prediction, curves, and the commands for them."""
