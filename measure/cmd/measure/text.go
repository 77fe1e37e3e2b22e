package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// plain is text of evidence, or about it, that cannot pass for lines of ours: what
// forges evidence also chooses the texts in it, and may try the terminal.
func plain(text string) string {
	if !strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) || c == utf8.RuneError }) {
		return text
	}
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1]
}

// plainLines is plain for errors, of which several stand on lines of their own.
func plainLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = plain(l)
	}
	return strings.Join(lines, "\n")
}

// printJSON writes JSON in which every character is printable. What is not lies
// within texts, where an escape says the same.
func (c *cli) printJSON(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	out := b.Bytes()
	if bytes.ContainsFunc(out, unprintable) {
		out = nil
		for _, r := range b.String() {
			if !unprintable(r) {
				out = utf8.AppendRune(out, r)
				continue
			}
			for _, unit := range utf16.Encode([]rune{r}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		}
	}
	_, err := c.out.Write(out)
	return err
}

// unprintable leaves out what encoding/json escapes anyway, and its own line ends.
func unprintable(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
