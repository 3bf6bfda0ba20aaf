"""Services that cost money: devices, prices, caps, tasks and their journal."""
