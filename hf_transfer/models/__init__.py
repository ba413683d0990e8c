"""Models: any checkpoint with its own image processor, and its head.

Knows the Hub, local folders, transformers and timm. Does not know pictures, training or what the labels mean.
"""
