"""What we know of images of cells: objects, their boundaries and shapes. No Ray, no models."""
