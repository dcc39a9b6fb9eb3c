"""What is learned: backbone + head + objective + metrics + optimizer."""
