package genpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/util"
)

// Bounds of a file with pods.
const (
	maxDocument = 4 << 20 // bytes
	maxObjects  = 10_000  // in one list
)

// object is a Kubernetes object, as far as it can hold a pod.
type object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       ignored  `json:"spec"`
	// Items are the objects of a list.
	Items []json.RawMessage `json:"items"`
}

type metadata struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// pod is a pod, and where it comes from.
type pod struct {
	metadata
	podSpec
	kind      string
	generated bool        // the pod's own name is not known yet
	beside    []*valueMap // what else stands in the file
}

var documentBorder = regexp.MustCompile(`(?m)^---[ \t]*(?:#.*)?$`)

// parsePod finds the pod that is meant in a file, which may hold other objects
// beside it. Where there are several, which says the one: NAME or KIND/NAME.
func parsePod(text []byte, which string) (*pod, error) {
	f, err := parseFile(text)
	if err != nil {
		return nil, err
	}
	var found []*pod
	var names []string
	for _, p := range f.pods {
		names = append(names, p.kind+"/"+p.Name)
		if which == "" || which == p.Name || strings.EqualFold(which, p.kind+"/"+p.Name) {
			found = append(found, p)
		}
	}
	switch {
	case len(f.pods) == 0:
		return nil, errors.New("there is no pod")
	case len(found) == 0:
		return nil, fmt.Errorf("there is no %s, but %s", which, strings.Join(names, ", "))
	case len(found) > 1:
		return nil, fmt.Errorf("there is more than one pod (%s); a policy is for one: choose it with --pod", strings.Join(names, ", "))
	}
	found[0].beside = f.maps
	return found[0], nil
}

// file is what a policy can be made of in a file.
type file struct {
	pods []*pod
	maps []*valueMap
}

func parseFile(text []byte) (*file, error) {
	if len(text) > maxDocument {
		return nil, fmt.Errorf("%d bytes long, at most %d are read", len(text), maxDocument)
	}
	f := &file{}
	for i, document := range documentBorder.Split(string(text), -1) {
		if strings.TrimSpace(document) == "" {
			continue
		}
		if err := f.document([]byte(document)); err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
	}
	return f, nil
}

func (f *file) document(text []byte) error {
	var raw any
	if err := util.Unmarshal(text, &raw); err != nil {
		return err
	}
	if raw == nil {
		return nil // comments alone
	}
	clean, err := json.Marshal(raw)
	if err != nil {
		return err
	}
	return f.object(clean, true)
}

// object takes what there is in an object, or in those of a list, which has no
// list in it.
func (f *file) object(text []byte, lists bool) error {
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	if strings.HasSuffix(o.Kind, "List") {
		if !lists || len(o.Items) > maxObjects {
			return fmt.Errorf("a list in a list, or more than %d objects", maxObjects)
		}
		for _, item := range o.Items {
			if err := f.object(item, false); err != nil {
				return err
			}
		}
		return nil
	}
	if o.Kind == kindConfigMap || o.Kind == kindSecret {
		m, err := parseValueMap(text)
		if err == nil {
			f.maps = append(f.maps, m)
		}
		return err
	}
	p, err := o.pod()
	if p == nil || err != nil {
		return err
	}
	f.pods = append(f.pods, p)
	return nil
}

// template is where objects keep their pods.
type template struct {
	Template struct {
		Spec json.RawMessage `json:"spec"`
	} `json:"template"`
	JobTemplate struct {
		Spec struct {
			Template struct {
				Spec json.RawMessage `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	} `json:"jobTemplate"`
	Claims []struct {
		Metadata metadata `json:"metadata"`
	} `json:"volumeClaimTemplates"`
}

// pod returns the pod of an object, nil for a kind that has none.
func (o object) pod() (*pod, error) {
	p := &pod{metadata: o.Metadata, kind: o.Kind, generated: o.Kind != "Pod"}
	spec := o.Spec
	var t template
	switch o.Kind {
	case "Pod":
	case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController", "CronJob":
		if err := json.Unmarshal(o.Spec, &t); err != nil {
			return nil, fmt.Errorf("%s %s: %w", o.Kind, o.Metadata.Name, err)
		}
		if spec = t.Template.Spec; o.Kind == "CronJob" {
			spec = t.JobTemplate.Spec.Template.Spec
		}
		if len(spec) == 0 {
			return nil, fmt.Errorf("%s %s has no pod template", o.Kind, o.Metadata.Name)
		}
	default:
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(spec))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p.podSpec); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s %s: what it means for the policy is not known: %w", o.Kind, o.Metadata.Name, err)
	}
	var claims []volume
	for _, c := range t.Claims { // of a StatefulSet; they come before volumes of the same name
		claims = append(claims, volume{Name: c.Metadata.Name, Claim: ignored("{}")})
	}
	p.Volumes = append(claims, p.Volumes...)
	return p, nil
}
