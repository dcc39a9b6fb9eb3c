"""The kinds of files a trained network can be exported as."""
