"""The engine: gives a claimed job its one outcome. It sees handlers only through the registry."""
