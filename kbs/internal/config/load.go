package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Origins says of each key that was given where it was given; a key that is
// not in it has its default.
type Origins map[string]string

// Loaded is a configuration and where it comes from.
type Loaded struct {
	Config
	Origins Origins
	Files   []string // that were read, in the order of reading
}

// Set is a setting of the command line.
type Set struct {
	Flag  string // as it was written, for Origins
	Key   string
	Value any // string, bool or int64
}

// Load reads the configuration and forgets where it came from.
func Load(path string, getenv func(string) string) (Config, error) {
	l, err := Read(path, getenv)
	return l.Config, err
}

// Read joins all sources and validates the result: a setting of the command
// line goes before an environment variable, that before the files of the
// directory conf.d beside the file (the last in the order of their names
// first), those before the file, and all before the defaults.
//
// An empty path means that there is no file. Relative paths in a file are
// relative to the file, elsewhere to the working directory.
func Read(path string, getenv func(string) string, set ...Set) (Loaded, error) {
	l := Loaded{Config: Default(getenv), Origins: Origins{}}
	var wrong []error
	for _, file := range files(path) {
		l.Files = append(l.Files, file)
		if err := l.readFile(file); err != nil {
			wrong = append(wrong, err)
		}
	}
	wrong = append(wrong, l.readEnv(getenv), l.readSet(set))
	if err := errors.Join(wrong...); err != nil {
		return l, err
	}
	if err := l.Validate(); err != nil && path != "" {
		return l, fmt.Errorf("%s: %w", path, err)
	} else if err != nil {
		return l, err
	}
	return l, nil
}

// files lists the file and its drop-ins, in the order of reading.
func files(path string) []string {
	if path == "" {
		return nil
	}
	more, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "conf.d", "*.toml")) // the pattern is well formed
	slices.Sort(more)
	return append([]string{path}, more...)
}

func (l *Loaded) readFile(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	doc, err := parse(path, raw)
	if err == nil {
		b := binder{name: filepath.Base(path), dir: filepath.Dir(path), lines: doc.lines, origins: l.Origins}
		err = b.bind(doc.tree, &l.Config)
	}
	if err != nil { // which may be several, each of its line
		return errors.New(path + ": " + strings.ReplaceAll(err.Error(), "\n", "\n"+path+": "))
	}
	return nil
}

// EnvName is the environment variable of a key: http_server.sockets is
// KBS_HTTP_SERVER_SOCKETS. A hyphen becomes an underscore as well.
func EnvName(key string) string {
	return "KBS_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// readEnv takes variables for all keys that are a text, a number, a truth
// value or a list of texts (separated by commas).
func (l *Loaded) readEnv(getenv func(string) string) error {
	var wrong []error
	visit := func(path string, f reflect.StructField) {
		text := getenv(EnvName(path))
		if path == "logging.level" && text == "" {
			text = rustLevel(getenv("RUST_LOG"))
		}
		if path == "storage_backend.backends.postgres.url" && text == "" {
			text = getenv("POSTGRES_URL") // the field's name for it
		}
		if text == "" || strings.Contains(path, "[]") {
			return
		}
		v, err := fromText(f.Type, text)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", EnvName(path), err))
			return
		}
		b := binder{name: "env " + EnvName(path), origins: l.Origins}
		if err := b.bind(nest(path, v), &l.Config); err != nil {
			wrong = append(wrong, err)
		}
	}
	walk(reflect.TypeFor[Config](), "", visit)
	return errors.Join(wrong...)
}

func fromText(t reflect.Type, text string) (any, error) {
	switch t.Kind() { //nolint:exhaustive // others cannot be written in a variable
	case reflect.String:
		return text, nil
	case reflect.Bool:
		return strconv.ParseBool(text)
	case reflect.Int, reflect.Int64:
		return strconv.ParseInt(text, 10, 64)
	case reflect.Float64:
		return strconv.ParseFloat(text, 64)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			var out []any
			for item := range strings.SplitSeq(text, ",") {
				out = append(out, strings.TrimSpace(item))
			}
			return out, nil
		}
	}
	return nil, errors.New("cannot be given in the environment")
}

func nest(path string, v any) map[string]any {
	head, rest, ok := strings.Cut(path, ".")
	if !ok {
		return map[string]any{head: v}
	}
	return map[string]any{head: nest(rest, v)}
}

func (l *Loaded) readSet(set []Set) error {
	var wrong []error
	for _, s := range set {
		b := binder{name: "flag " + s.Flag, origins: l.Origins}
		wrong = append(wrong, b.bind(nest(s.Key, s.Value), &l.Config))
	}
	return errors.Join(wrong...)
}

// Parse reads TOML over the values in c.
func Parse(raw []byte, c *Config) error {
	doc, err := parse("", raw)
	if err != nil {
		return err
	}
	b := binder{lines: doc.lines, origins: Origins{}}
	return b.bind(doc.tree, c)
}
