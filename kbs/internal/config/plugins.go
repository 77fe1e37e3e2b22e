package config

import "fmt"

// Plugin is one [[plugins]] block (kbs-protocol 8).
type Plugin struct {
	// Name is resource, the one plugin that is built in.
	Name string `toml:"name"`
	// StorageBackendType is kvstorage, the broker's own store.
	StorageBackendType string `toml:"storage_backend_type"`
}

func validatePlugins(all []Plugin, p *problems) {
	seen := map[string]bool{}
	for i, x := range all {
		at := fmt.Sprintf("plugins[%d]", i)
		switch {
		case x.Name != "resource":
			p.bad(at+".name", "there is no plugin %q; resource is the one that is built in", x.Name)
		case x.StorageBackendType != "" && x.StorageBackendType != "kvstorage" && x.StorageBackendType != "KvStorage":
			p.bad(at+".storage_backend_type", "there is no back end %q; kvstorage is the broker's own store", x.StorageBackendType)
		case seen[x.Name]:
			p.bad(at+".name", "%s is given twice", x.Name)
		}
		seen[x.Name] = true
	}
}
