"""How bright images are: a plug-in of sd2eval."""
