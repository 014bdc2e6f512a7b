"""What a call is worth: pictures scored on the person, payloads counted to the byte, and R against AV1."""
