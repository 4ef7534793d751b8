"""What runs a trained network on images: engines, and the tiles, flips and magnifications in which they are asked."""
