print("hello from Fairing")
