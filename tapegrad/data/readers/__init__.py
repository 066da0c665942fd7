"""Files and foreign collections into arrays and tables, read strictly: errors name the file and the line."""
