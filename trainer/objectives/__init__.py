"""What a training run optimises: the protocol, the contrastive objective, and masked-image distillation."""
