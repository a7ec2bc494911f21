"""One suite that every transport must pass, with real databases, through whole participants."""
