package registry

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// checkPartial holds the answer to a request for the bytes from one offset to before
// another against what was asked for
// (RFC 9110 section 14.4): "bytes first-last/size", the size possibly "*".
func checkPartial(resp *http.Response, from, to, size int64) error {
	if resp.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("%w: status %d to a range request", ErrNoResume, resp.StatusCode)
	}
	v := resp.Header.Get("Content-Range")
	first, last, total, ok := parseContentRange(v)
	if !ok || first != from || last != to-1 || (total != size && total != -1) {
		return fmt.Errorf("%w: content range %.80q, wanted bytes %d-%d/%d", ErrNoResume, v, from, to-1, size)
	}
	return nil
}

// parseContentRange returns -1 for a size of "*".
func parseContentRange(v string) (first, last, total int64, ok bool) {
	rest, ok := strings.CutPrefix(v, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	a, b, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, false
	}
	numbers := [3]int64{2: -1}
	for i, s := range []string{a, b, size} {
		if i == 2 && s == "*" {
			continue
		}
		n, err := strconv.ParseUint(s, 10, 62)
		if err != nil {
			return 0, 0, 0, false
		}
		numbers[i] = int64(n)
	}
	return numbers[0], numbers[1], numbers[2], numbers[0] <= numbers[1]
}
