"""Pictures of a manifest as a contact sheet, for a notebook or a file: `Manifest(root).show("kept and …")`."""
