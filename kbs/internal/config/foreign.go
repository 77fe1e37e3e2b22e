package config

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// foreign explains keys of the field's broker that have no meaning here: why,
// and what to use. A key stands for all below it. Whoever gives a key a meaning
// takes it out.
var foreign = map[string]string{
	"admin.type":                                 "the field's broker dropped it too; administrators bear tokens: kbs admin-token",
	"admin.insecure_api":                         "the admin API cannot be opened to everyone; administrators bear tokens: kbs admin-token",
	"admin.auth_public_key":                      "the field's broker dropped it too; administrators bear tokens: kbs admin-token",
	"attestation_token.duration_min":             "belongs into attestation_service.attestation_token_broker",
	"attestation_token.issuer_name":              "belongs into attestation_service.attestation_token_broker",
	"attestation_service.verifier_config":        "use the [verifier] table, which has one table for each platform",
	"attestation_service.storage_type":           "the broker keeps all its state in one store: see storage_backend",
	"attestation_service.base_url":               "Intel Trust Authority is not supported",
	"attestation_service.api_key":                "Intel Trust Authority is not supported",
	"attestation_service.certs_file":             "Intel Trust Authority is not supported",
	"attestation_service.policy_ids":             "Intel Trust Authority is not supported",
	"attestation_service.allow_unmatched_policy": "Intel Trust Authority is not supported",
	"storage_backend.backends.local_json":        "the broker keeps its state in SQLite or PostgreSQL",
	"storage_backend.backends.redis":             "the broker keeps its state in SQLite or PostgreSQL",
	"session_storage_type":                       "the broker keeps all its state in one store: see storage_backend",
	"sockets":                                    "belongs into http_server",
	"plugins[].module":                           tokenKey,
	"plugins[].slot_index":                       "kbs-pkcs11 finds a token by its label: token in its own configuration",
	"plugins[].pin":                              "the PIN is in a file of its own, which kbs-pkcs11 reads: pin_file in its configuration",
	"plugins[].rsa_mechanism":                    tokenKey,
	"plugins[].lookup_label":                     tokenKey,
	"plugins[].work_dir":                         "the authority's key is in no file: it lies in the broker's store, sealed under the master key",
	"plugins[].nebula_cert_bin_path":             "certificates are made by the broker itself, not by the program nebula-cert",
	"plugins[].self_signed_ca":                   "the field's documents call ca_config so, and its broker does not read it",
	"plugins[].ca_config.out_qr":                 "nothing draws the certificate as a picture",
	"plugins[].ca_config.argon_iterations":       noPassphrase,
	"plugins[].ca_config.argon_memory":           noPassphrase,
	"plugins[].ca_config.argon_parallelism":      noPassphrase,
}

// noPassphrase is why nothing derives a key from one.
const noPassphrase = "no passphrase locks the authority's key: it is sealed under the master key"

// tokenKey is where the broker's process for tokens has its settings.
const tokenKey = "belongs into the configuration of kbs-pkcs11, whose socket the plugin asks"

// inList are the numbers in a path.
var inList = regexp.MustCompile(`\[\d+\]`)

// advice says what to do about an unknown key: the reason if it is one of the
// field's, else the key that was probably meant.
func advice(path string) string {
	for at := inList.ReplaceAllString(path, "[]"); at != ""; at = at[:max(strings.LastIndexByte(at, '.'), 0)] {
		if text, ok := foreign[at]; ok {
			return ": " + text
		}
	}
	if near := nearest(path); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// nearest returns the key that was probably meant: one a few letters away, or
// else one of the same name in another table.
func nearest(path string) string {
	best, score := "", 3+len(path)/8
	last := path[strings.LastIndexByte(path, '.')+1:]
	namesake := ""
	for _, k := range Keys() {
		if d := distance(path, k); d < score {
			best, score = k, d
		}
		if strings.HasSuffix(k, "."+last) && namesake == "" {
			namesake = k
		}
	}
	if best == "" {
		return namesake
	}
	return best
}

// distance is the number of letters to add, drop or change (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Keys lists every key and table, sorted. Members of lists are under "[]".
func Keys() []string {
	var out []string
	walk(reflect.TypeFor[Config](), "", func(path string, _ reflect.StructField) { out = append(out, path) })
	slices.Sort(out)
	return out
}

// walk visits every member of a struct type, tables before their members.
func walk(t reflect.Type, path string, visit func(path string, f reflect.StructField)) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && keyOf(f) == "" {
			walk(f.Type, path, visit)
			continue
		}
		at := join(path, keyOf(f))
		visit(at, f)
		below := f.Type
		if below.Kind() == reflect.Pointer {
			below = below.Elem()
		}
		if below.Kind() == reflect.Slice && below.Elem().Kind() == reflect.Struct {
			at, below = at+"[]", below.Elem()
		}
		if below.Kind() == reflect.Struct {
			walk(below, at, visit)
		}
	}
}

func sortedNames[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
