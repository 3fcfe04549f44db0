"""Where XCom payloads live."""
