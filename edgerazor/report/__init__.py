"""Reports in one HTML file: runs side by side, with pictures as SVG, nothing that is fetched and no scripts."""
