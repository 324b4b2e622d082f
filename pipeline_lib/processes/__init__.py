"""The worker child: started, fed, watched and stopped by the parent; and locks per device."""
