"""What `mm_keras.train` trains with: the loop, checkpoints, optimizers, precision, progress."""
