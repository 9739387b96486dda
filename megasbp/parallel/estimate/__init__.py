"""What a layout holds, computes and sends, by arithmetic: no process group, no device, no tensor."""
