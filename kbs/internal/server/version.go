package server

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// seen is the version that a writer saw: that of If-Match if it is given, or
// else what the body says.
func seen(r *http.Request, inBody int64) (int64, error) {
	tag := r.Header.Get("If-Match")
	switch tag {
	case "":
		return inBody, nil
	case "*":
		return int64(store.Any), nil
	}
	n, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`), 10, 64)
	if err != nil || n < 0 {
		return 0, fault.Newf(fault.InvalidRequest, "If-Match is a version in quotes, or *")
	}
	return n, nil
}

// tag is the ETag of a version.
func tag(w http.ResponseWriter, version int64) {
	w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(version, 10)))
}
