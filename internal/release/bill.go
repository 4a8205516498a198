package release

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// BillOfMaterials writes what the binaries consist of, as they say themselves.
func (s Source) BillOfMaterials(out string) error {
	bom := cdx.NewBOM()
	bom.SerialNumber = ""
	bom.Metadata = &cdx.Metadata{
		Timestamp: s.Date.Format(time.RFC3339),
		Component: &cdx.Component{
			BOMRef: "quorate", Type: cdx.ComponentTypeApplication, Name: "quorate",
			Version:  s.Version,
			Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
		},
	}
	var parts []cdx.Component
	known := map[string]bool{}
	for _, command := range Commands {
		info, err := buildinfo.ReadFile(Binary(out, Arches[0], command))
		if err != nil {
			return err
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			purl := "pkg:golang/" + m.Path + "@" + m.Version
			if known[purl] {
				continue
			}
			known[purl] = true
			parts = append(parts, cdx.Component{
				BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version,
				PackageURL: purl, Scope: cdx.ScopeRequired,
				Properties: &[]cdx.Property{{Name: "go:sum", Value: m.Sum}},
			})
		}
		if purl := "pkg:golang/std@" + info.GoVersion; !known[purl] {
			known[purl] = true
			parts = append(parts, cdx.Component{
				BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: "std",
				Version: info.GoVersion, PackageURL: purl,
			})
		}
	}
	bom.Components = &parts
	f, err := os.Create(filepath.Join(out, "quorate.cdx.json"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := cdx.NewBOMEncoder(f, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return err
	}
	return f.Close()
}
