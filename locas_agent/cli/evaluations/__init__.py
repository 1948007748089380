"""The commands `locas-agent eval ...`, one a module."""
