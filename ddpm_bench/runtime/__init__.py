"""Where and how things run: device, batch, progress, messages, interruption. Nothing here changes a result beyond rounding."""
