package settings

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/pelletier/go-toml/v2"
)

// maxEndpoints bounds the list of requests; there are 42.
const maxEndpoints = 256

// readConfigFile reads the agent's own configuration file (kata-agent 3.2). It
// has the parameters of the command line as keys, and a few more.
func (c *commandLine) readConfigFile(raw []byte) error {
	if len(raw) > maxDocument {
		return fmt.Errorf("%d bytes long, at most %d are read", len(raw), maxDocument)
	}
	var file map[string]any
	if err := toml.NewDecoder(bytes.NewReader(raw)).Decode(&file); err != nil {
		return err
	}
	var keys []string
	for key := range file {
		keys = append(keys, key)
	}
	slices.Sort(keys) // warnings and errors come in an order that stays
	for _, key := range keys {
		if err := c.fileKey(key, file[key]); err != nil {
			return err
		}
	}
	return nil
}

func (c *commandLine) fileKey(key string, value any) error {
	if key == "endpoints" {
		return c.setEndpoints(value)
	}
	p, known := byKey(key)
	if !known {
		c.warnings = append(c.warnings, "configuration file: "+key)
		return nil
	}
	text, err := scalar(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return p.apply(c, "configuration file", key, text)
}

// scalar is a value as the command line would have it.
func scalar(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case map[string]any: // how Rust writes a time
		secs, ok := v["secs"].(int64)
		nanos, fraction := v["nanos"].(int64)
		if ok && len(v) <= 2 && (len(v) == 1 || fraction && nanos == 0) {
			return strconv.FormatInt(secs, 10), nil
		}
		return "", errors.New("want a number of seconds")
	}
	return "", errors.New("want a text, a number or true or false")
}

// setEndpoints takes the list of the requests that are answered. It closes, so
// that what is not understood here is refused.
func (c *commandLine) setEndpoints(value any) error {
	bad := errors.New("endpoints: want a table with allowed, a list of names of requests")
	table, ok := value.(map[string]any)
	if !ok || len(table) > 1 {
		return bad
	}
	allowed, ok := table["allowed"].([]any)
	if !ok || len(allowed) > maxEndpoints {
		return bad
	}
	c.agent.Endpoints = []string{}
	for _, one := range allowed {
		name, ok := one.(string)
		if !ok {
			return bad
		}
		c.agent.Endpoints = append(c.agent.Endpoints, name)
	}
	return nil
}
