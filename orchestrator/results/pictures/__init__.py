"""What the pictures of a sweep show: a module a picture, from the tables to what two backends draw."""
