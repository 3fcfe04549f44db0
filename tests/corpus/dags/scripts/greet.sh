echo "hello {{ params.name }} of {{ ds }}"
