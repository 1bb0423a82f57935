"""How SPAIR is run: the demo, the development stack, containers and cluster manifests."""
