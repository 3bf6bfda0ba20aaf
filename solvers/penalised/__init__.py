"""Any dimod sampler behind a penalty and repair, and Ocean's classical samplers."""
