"""From a layer to a block problem: capture, gradients, curvature, scores, masks, build, export."""
