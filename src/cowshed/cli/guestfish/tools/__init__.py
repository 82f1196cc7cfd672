"""The tools beside guestfish: virt-cat, virt-ls, virt-edit and the others."""
