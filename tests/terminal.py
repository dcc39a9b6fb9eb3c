"""A terminal that remembers what was written to it."""

import io


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that a person sees now.

        `\\r` goes back to the start of a line, `ESC[A` goes up one line, `ESC[2K` empties the line.
        """
        lines, row, column = [""], 0, 0
        text = self.getvalue().replace("\x1b[A", "\x0b").replace("\x1b[2K", "\x0c")
        for character in text:
            if character == "\r":
                column = 0
            elif character == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif character == "\x0b":
                row -= 1
            elif character == "\x0c":
                lines[row] = ""
            else:
                lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
                column += 1
        return [line.rstrip() for line in lines if line.strip()]
