mod libraries;
