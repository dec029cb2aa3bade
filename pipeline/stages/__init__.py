"""What is added to a frame, in the order of the flow: detect, track, classify, smooth."""
