"""Who is in the picture: instances, what is kept, label maps, framing."""
