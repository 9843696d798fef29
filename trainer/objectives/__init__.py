"""What a training run optimises: the contrastive objective and masked-image distillation."""
