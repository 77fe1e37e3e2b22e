package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
)

// ErrAbsent says that a server does not have a file.
var ErrAbsent = errors.New("it is not there")

// Get opens a file of an archive: by http or https, or file on this machine. What
// it reads is whatever the server says: the caller checks it.
func Get(ctx context.Context, client *http.Client, address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		return os.Open(u.Path)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	_ = res.Body.Close()
	if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone {
		return nil, fmt.Errorf("%s: %w: the server answers %s", address, ErrAbsent, res.Status)
	}
	return nil, fmt.Errorf("%s: the server answers %s", address, res.Status)
}
