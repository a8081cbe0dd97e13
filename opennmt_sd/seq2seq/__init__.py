"""What the plugins of several translation toolkits share. It imports none of them."""
