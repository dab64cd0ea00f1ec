"""Server-rendered pages: overview of loops, one loop, one model, sign-in."""
