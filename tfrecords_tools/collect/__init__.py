"""What is fetched over the network, before packing; each collector can be stopped and resumed."""
