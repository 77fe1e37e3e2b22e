package genpolicy

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// part says whether a mount is of a part of its volume.
func (m volumeMount) part() bool { return m.SubPath != "" || m.SubPathExpr != "" }

// emptyDir completes the mount of one.
//
// Of a part of it, runtimes send a directory that the host has made where its own,
// empty view of the volume lies. So a volume of which any container mounts a part
// is the agent's own, in all containers.
func (p *pod) emptyDir(item *mount, v volume, m volumeMount, values map[string]*string) error {
	item.Volume = v.Name
	switch medium := v.EmptyDir.Medium; {
	case medium == "Memory":
		item.Kind = kindMemory
	case medium == "":
		item.Kind = kindDisk
	case medium == "HugePages" || strings.HasPrefix(medium, "HugePages-"):
		item.Kind = kindHuge
	default:
		return fmt.Errorf("medium %q is not supported", medium)
	}
	if !p.hasParts(v.Name) {
		return nil
	}
	if item.Kind == kindHuge {
		return errors.New("parts of an emptyDir of large pages are not supported")
	}
	item.Own, item.Group = true, p.podSpec.SecurityContext.FSGroup
	var err error
	item.Path, err = partOf(m, values)
	return err
}

// hasParts says whether any container mounts a part of a volume.
func (p *pod) hasParts(name string) bool {
	return slices.ContainsFunc(slices.Concat(p.InitContainers, p.Containers), func(c container) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(m volumeMount) bool { return m.Name == name && m.part() })
	})
}

// maxPart bounds the path of a part, in bytes.
const maxPart = 4096

// partOf is the path of a mount's part of its volume.
func partOf(m volumeMount, values map[string]*string) (string, error) {
	part := m.SubPath
	if m.SubPathExpr != "" {
		if m.SubPath != "" {
			return "", errors.New("it has both subPath and subPathExpr")
		}
		for _, name := range reference.FindAllString(m.SubPathExpr, -1) {
			if v, defined := values[strings.Trim(name, "$()")]; name != "$$" && (!defined || v == nil) {
				return "", fmt.Errorf("subPathExpr %q needs the value of %s, which only the cluster knows", m.SubPathExpr, name)
			}
		}
		part, _ = expand(m.SubPathExpr, values)
	}
	if part == "" {
		return "", nil
	}
	if path.IsAbs(part) || slices.Contains(strings.Split(part, "/"), "..") || !filepath.IsLocal(part) || len(part) > maxPart || strings.Contains(part, "\x00") {
		return "", fmt.Errorf("the subPath %.64q is no path in a volume", part)
	}
	if part = path.Clean(part); part == "." {
		return "", nil
	}
	return part, nil
}
