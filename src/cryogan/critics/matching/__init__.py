"""The matching critic, the default: its parameters have a closed form."""
