// Package archive reads what a Debian archive says of its packages, and chooses
// from it: which versions there are, who signed the list, and what needs what.
package archive

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrIndex says that a list of packages or of files is malformed.
var ErrIndex = errors.New("malformed index of an archive")

const (
	maxLine   = 4 << 20 // bytes: the longest are lists of Provides
	maxFields = 200     // of a paragraph
)

// paragraphs calls visit with each paragraph of a control file (Debian Policy
// 5.1). Of a folded field the lines follow each other, ended by newlines.
func paragraphs(r io.Reader, visit func(map[string]string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	fields, last := map[string]string{}, ""
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if len(fields) > 0 {
				if err := visit(fields); err != nil {
					return err
				}
				fields, last = map[string]string{}, ""
			}
			continue
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return fmt.Errorf("%w: a continuation of nothing: %.60q", ErrIndex, line)
			}
			if len(fields[last]) > maxLine {
				return fmt.Errorf("%w: field %.30q is too long", ErrIndex, last)
			}
			fields[last] += "\n" + strings.TrimSpace(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || len(fields) == maxFields {
			return fmt.Errorf("%w: %.60q", ErrIndex, line)
		}
		if _, twice := fields[name]; twice {
			return fmt.Errorf("%w: field %.30q is there twice", ErrIndex, name)
		}
		last = name
		fields[name] = strings.TrimSpace(value)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrIndex, err)
	}
	if len(fields) > 0 {
		return visit(fields)
	}
	return nil
}
