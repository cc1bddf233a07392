"""The product catalogue: master data, and attributes of products as arrays."""
