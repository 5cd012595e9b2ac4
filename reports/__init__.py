"""What reports are compared with: the published curves of the model card."""
